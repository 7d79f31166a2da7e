"""How well a batch edit works: python -m bench.edit_batch [--counts 1 10 50] [--json].

Removes batches of objects of emoji-sd, each into another object, and prints by the scorer's forced
choice over unseen prompts (engine/evaluation.py) what is erased and kept, of all images and of those
that the unedited model draws right, for each set of components and anchor.
"""
