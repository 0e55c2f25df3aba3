"""Tuned models and AudioScores as the Hugging Face ecosystem has them: folders, model cards, repositories.

`saving.save_pretrained`, `loading.from_pretrained` and `remote.push_to_hub` for models; `audioscores` has
the first two for AudioScore. `foleypref hub` is the same on the command line.
"""
