"""Recipes: functions that return a whole `Recipe` as data. One recipe a file, variants are three lines."""
