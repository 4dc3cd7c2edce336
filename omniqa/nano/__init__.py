"""nano's own small world: clips of shapes and sounds made from a script, and questions with one true answer each."""
