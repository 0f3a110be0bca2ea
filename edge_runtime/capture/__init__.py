"""Cameras and the trigger: who took which picture, of which part."""
