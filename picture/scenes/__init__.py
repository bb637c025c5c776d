"""The scenes that make_scenes.py paints: one module a scene, and the tools that they share."""
