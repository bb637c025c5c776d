"""What only style_transfer_cpu.py needs, from its settings to its reports."""
