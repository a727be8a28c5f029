"""How compiled code is kept on disk, and how work is spread over threads.  Nothing here knows of recurrent nets."""
