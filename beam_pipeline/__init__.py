"""An Apache Beam pipeline from image URLs to TFRecords for training colorization networks."""

__version__ = "0.1.0"
