"""The lines: the only files that name all stages. Read one top to bottom and you know how a part travels."""
