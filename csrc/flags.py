"""The flags that csrc/ is compiled with: for setup.py, and for the tests that compile it by themselves."""

LANGUAGE = ["-std=c++20"]

# Which bits come out.
ARITHMETIC = [
    "-fno-math-errno",  # with the next one: else a loop with a square root or a division is not vectorised
    "-fno-trapping-math",
    "-ffp-contract=off",  # else a loop's body and its tail round differently
]

SHIPPED = ["-O3", *LANGUAGE, *ARITHMETIC]

# Errors where `make test` builds: there CFLAGS holds -Werror, which torch hands to C++ too. A user's build goes on,
# whatever a newer compiler says. -Wall holds -Wswitch, which names what does not know a new layer.
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wnon-virtual-dtor", "-Woverloaded-virtual"]

TORCH = ["-DTORCH_TARGET_VERSION=0x020b000000000000"]  # the stable ABI of torch 2.11


def system_includes(folders: list[str]) -> list[str]:
    """Flags for the headers of others, of which no warning is wanted."""
    return [flag for folder in folders for flag in ("-isystem", folder)]
