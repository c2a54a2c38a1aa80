"""The rules: what a line may say and what it asks for. No I/O and no clock."""
