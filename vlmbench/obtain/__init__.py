"""Public datasets, brought to the folder where their readers look: downloaded, verified, unpacked, put in place."""
