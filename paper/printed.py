"""The paper's own figures (arXiv 2306.15595, v2), to stand beside ours.

Windows are in tokens; None where the paper prints a dash. `BEYOND` stands for its "> 10^3". All of it is of LLaMA, whose
window is 2,048 tokens, and of texts that the pilot does not have: the same setting is `size_of` a model and its data.
"""

BEYOND = 1000.0  # the paper prints perplexities of untuned models beyond their window as "> 10^3"
WINDOWS = (2048, 4096, 8192, 16384, 32768)
ORIGINAL = 2048
STRIDE = 256  # of the sliding windows
DIRECT_STEPS, PI_STEPS = 10_000, 1_000  # of the rows of Tables 1 and 2 (section 3.1)
SIZES = {"7B": 6.74e9, "13B": 13.0e9, "33B": 32.5e9, "65B": 65.3e9}  # parameters of LLaMA

# (size, window, method) -> perplexity at each of WINDOWS
TABLE_1 = {
    ("7B", 2048, "base"): (7.20, BEYOND, BEYOND, BEYOND, BEYOND),
    ("7B", 8192, "none"): (7.21, 7.34, 7.69, None, None),
    ("7B", 8192, "pi"): (7.13, 6.96, 6.95, None, None),
    ("7B", 16384, "pi"): (7.11, 6.93, 6.82, 6.83, None),
    ("7B", 32768, "pi"): (7.23, 7.04, 6.91, 6.80, 6.77),
    ("13B", 2048, "base"): (6.59, None, None, None, None),
    ("13B", 8192, "none"): (6.56, 6.57, 6.69, None, None),
    ("13B", 8192, "pi"): (6.55, 6.42, 6.42, None, None),
    ("13B", 16384, "pi"): (6.56, 6.42, 6.31, 6.32, None),
    ("13B", 32768, "pi"): (6.54, 6.40, 6.28, 6.18, 6.09),
    ("33B", 2048, "base"): (5.82, None, None, None, None),
    ("33B", 8192, "none"): (5.88, 5.99, 6.21, None, None),
    ("33B", 8192, "pi"): (5.82, 5.69, 5.71, None, None),
    ("33B", 16384, "pi"): (5.87, 5.74, 5.67, 5.68, None),
    ("65B", 2048, "base"): (5.49, None, None, None, None),
    ("65B", 8192, "pi"): (5.42, 5.32, 5.37, None, None),
}
TABLE_2 = {
    ("7B", 2048, "base"): (2.77, None, None, None, None),
    ("7B", 8192, "none"): (2.85, 2.74, 2.73, None, None),
    ("7B", 8192, "pi"): (2.79, 2.57, 2.39, None, None),
    ("7B", 16384, "pi"): (2.79, 2.57, 2.37, 2.25, None),
    ("7B", 32768, "pi"): (2.82, 2.59, 2.39, 2.24, 2.48),
    ("13B", 2048, "base"): (2.66, None, None, None, None),
    ("13B", 8192, "none"): (2.71, 2.56, 2.50, None, None),
    ("13B", 8192, "pi"): (2.67, 2.47, 2.30, None, None),
    ("13B", 16384, "pi"): (2.68, 2.47, 2.29, 2.18, None),
    ("13B", 32768, "pi"): (2.68, 2.46, 2.28, 2.15, 2.35),
    ("33B", 2048, "base"): (2.49, None, None, None, None),
    ("33B", 8192, "none"): (2.56, 2.48, 2.47, None, None),
    ("33B", 8192, "pi"): (2.50, 2.32, 2.18, None, None),
    ("33B", 16384, "pi"): (2.53, 2.34, 2.18, 2.07, None),
    ("65B", 2048, "base"): (2.42, None, None, None, None),
    ("65B", 8192, "pi"): (2.43, 2.26, 2.12, None, None),
}
# (size, window, method) -> {tuning step: value}
TABLE_3 = {
    ("7B", 8192, "pi"): {0: 16.10, 200: 7.12, 400: 7.10, 600: 7.02, 800: 6.99, 1000: 6.95},
    ("7B", 16384, "pi"): {0: 112.13, 200: 7.05, 400: 6.93, 600: 6.88, 800: 6.84, 1000: 6.83},
}
TABLE_4 = {
    ("7B", 8192, "none"): {200: 1792, 400: 2048, 600: 2048, 800: 2048, 1000: 2304, 10000: 2560},
    ("33B", 8192, "none"): {200: 1792, 400: 2048, 600: 1792, 800: 2048, 1000: 2304},
    ("7B", 8192, "pi"): {200: 8192, 400: 8192, 600: 8192, 800: 8192, 1000: 8192},
    ("7B", 16384, "pi"): {200: 16384, 400: 16384, 600: 16384, 800: 16384, 1000: 16384},
    ("7B", 32768, "pi"): {200: 32768, 400: 32768, 600: 18432, 800: 32768, 1000: 32768},
    ("33B", 8192, "pi"): {200: 8192, 400: 8192, 600: 8192, 800: 8192, 1000: 8192},
    ("33B", 16384, "pi"): {200: 16384, 400: 16384, 600: 16384, 800: 16384, 1000: 16384},
}
SHORT_TASKS = ("boolq", "piqa", "race-middle", "race-high", "winogrande")
# (size, window, tuned on) -> per cent right in SHORT_TASKS
TABLE_5 = {
    ("7B", 2048, "none"): (76.1, 78.9, 55.7, 42.2, 69.6),
    ("7B", 8192, "Pile"): (73.2, 78.2, 53.8, 41.7, 69.0),
    ("7B", 16384, "Pile"): (69.8, 77.6, 53.3, 40.9, 67.8),
    ("7B", 32768, "Pile"): (64.7, 77.2, 50.1, 39.6, 66.9),
    ("7B", 8192, "RedPajama"): (75.5, 77.4, 54.5, 41.5, 68.1),
    ("33B", 2048, "none"): (81.6, 80.2, 61.1, 45.9, 76.2),
    ("33B", 8192, "Pile"): (80.2, 80.7, 60.2, 45.7, 75.9),
}
# model (16,384 tokens all) -> ROUGE-1, -2, -L on GovReport
TABLE_6 = {
    "CoLT5-Base": (58.7, 29.6, 31.4),
    "CoLT5-XL": (61.3, 32.2, 33.8),
    "LLaMA-7B, PI": (60.0, 28.0, 29.5),
}


def size_of(parameters: int, window: int) -> str | None:
    """The paper's name of a model of so many parameters and this window, within 5 %; None where it has none.

    >>> size_of(6_738_415_616, 2048), size_of(6_738_415_616, 4096), size_of(1_967_808, 256)
    ('7B', None, None)
    """
    near = [size for size, count in SIZES.items() if abs(parameters / count - 1) < 0.05]
    return near[0] if near and window == ORIGINAL else None


def beside(parameters: int, window: int) -> tuple[str, bool]:
    """The rows of the paper to print beside a model's, and whether they are of that model: else those of 7B.

    >>> beside(1_967_808, 256)
    ('7B', False)
    """
    same = size_of(parameters, window)
    return same or "7B", same is not None
