"""What the box remembers: the journal (one row per part), pictures of parts, and how to read and draw them.

The journal and the pictures only listen to the line. Full, damaged or missing disks are theirs to survive.
"""
