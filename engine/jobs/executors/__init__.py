"""What places the runs of a study: processes of this machine, Ray, Slurm; one file each, one line in `table.py`."""
