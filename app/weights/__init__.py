"""The files of local models: which ones a profile needs, and the one command that downloads them.

No job ever downloads: `darkroom models pull` does, after it has shown licence and size.
"""
