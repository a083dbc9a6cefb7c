"""`lineament review`: a small local page to look at doubtful labels and decide by keyboard."""
