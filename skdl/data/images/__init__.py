"""Arrays, lists and files of images to encoded tables."""
