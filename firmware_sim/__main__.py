"""`python -m firmware_sim`: the same as `firmware-sim`. Must never hold anything else."""

from firmware_sim.cli import main

if __name__ == "__main__":
    main()
