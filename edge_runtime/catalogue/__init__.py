"""What the station can be asked about: parts, defects and their work instructions, found by text or by voice."""
