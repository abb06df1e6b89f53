"""Work that needs a CPU, in processes of its own."""
