"""What only `vgg_cpu.py` needs: its command, costs of layers, and what a network sees."""
