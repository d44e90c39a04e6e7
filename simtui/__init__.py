"""simtui"""
