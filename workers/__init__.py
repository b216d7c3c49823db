"""Darkroom's drawing side: takes jobs off queues and puts images into the store."""
