"""Native kernels: loops written in Python, compiled to machine code once per machine."""
