"""Methods of adaptation, one small file each; none knows a dataset."""
