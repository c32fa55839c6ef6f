"""Sets a title on a picture, in any script that some font at hand can write.

Shaping, outlines and rasters are HarfBuzz's (uharfbuzz), and the order of right-to-left text is worked out
here, so that nothing depends on what libraries the system has: Pillow shapes Arabic or Hindi only where it
finds libfribidi, which slim containers lack.
"""
