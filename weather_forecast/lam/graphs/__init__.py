"""Graphs between the points of a grid and a coarser mesh, and among the nodes of the mesh."""
