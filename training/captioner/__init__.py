"""The shipped captioner from photographs and their captions: `python -m training.captioner.train --help`."""
