"""What only `mnist_mlp_cpu.py` needs: its command, its files, and digits drawn or photographed."""
