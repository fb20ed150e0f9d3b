"""Table 1 of the paper: perplexity on long books (PG-19) by evaluation window, for PI, direct tuning and the base.

Windows slide by 256 tokens, each token counts once. By default the model is the pilot, its books the held-out modules of
the standard library, and the targets 4 and 8 times its window; both methods are tuned alike, for --steps steps. What is
tuned lies in --work, is shared with the other tables, and goes on where it stopped.

    python paper/table1.py
    python paper/table1.py --model llama-7b --data pg19-test --tune-on pile --windows 8k,16k,32k --steps 1000 \\
        --documents 100 --every 200 --out tables

The second is the paper's setting but for two things: each text is cut at twice the longest window, where the paper reads whole
books, and direct tuning has PI's 1,000 steps, where the paper's has 10,000. 7B in float32 needs the GPUs that paper/recipes names.
"""

from options import run, study_of, table_options
from part import Part, write_part
from perplexity_tables import measured_rows, perplexity_part
from printed import TABLE_1
from study import Study


def table(study: Study) -> Part:
    texts = "held-out modules of the standard library" if study.data == ("pilot",) else ", ".join(study.data)
    lede = (
        f"Texts: {texts}, {study.documents} at most, {study.truncate} tokens of each. Both methods tuned for {study.steps} "
        "steps on the same rows."
    )
    title = "Table 1: perplexity on long texts"
    return perplexity_part(study, "table1", title, lede, TABLE_1, measured_rows(study, "texts"))


def main(arguments: list[str] | None = None) -> None:
    given = table_options(__doc__).parse_args(arguments)
    write_part(table(study_of(given)), given.out)


if __name__ == "__main__":
    run(main)
