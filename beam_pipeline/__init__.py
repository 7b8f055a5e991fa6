"""Image URLs in, training-ready TFRecords for colorization networks out, by one Apache Beam graph."""

__version__ = "0.1.0"
