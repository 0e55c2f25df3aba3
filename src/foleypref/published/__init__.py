"""Other people's networks: built, filled with their published weights, and spoken to in the house's terms."""
