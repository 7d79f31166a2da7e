"""Valid runs, edits and inputs with one thing changed: every command ends in order."""
