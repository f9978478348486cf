"""edgeprefix through its public engine, as installed."""

from __future__ import annotations

from protocol import Generated, Job, Stamps, serve

from edgeprefix.runtime import Engine


class Ours:
    """Rows are streams; of several, the last to start is timed, while all the others run."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._compiled = ""

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("generate before load")
        return self._engine

    def load(self, job: Job) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None
            self._compiled = ""
        # The first rows run on until the last one is through
        spare = job.batch if job.batch > 1 else 0
        self._engine = Engine.load(
            job.model, max_batch=job.batch, max_length=job.capacity + spare, threads=job.threads
        )

    def generate(self, prompts: list[list[int]], new: int, prefix: str | None = None) -> Generated:
        rows = len(prompts)
        stamps, tokens = Stamps(), []
        more = rows if rows > 1 else 0
        streams = [
            self.engine.stream(prompt, task=prefix, max_new_tokens=new + more, ignore_end=True)
            for prompt in prompts
        ]
        for piece in streams[-1]:
            if piece.token is not None:
                stamps.mark()
                tokens.append(piece.token)
            if len(tokens) == new:
                break
        for stream in streams:
            stream.close()
        return stamps.generated([tokens])

    def compile(self, text: str, prompt: list[int]) -> Generated:
        """First token of `prompt` behind `text` as a compiled prefix, resident as tasks are.
        Compiling is not timed.
        """
        if text != self._compiled:
            self.engine.load_prefix(self.engine.compile(text, name="compiled"))
            self._compiled = text
        return self.generate([prompt], 1, prefix="compiled")

    def prompt_text(self, text: str, prompt: list[int]) -> Generated:
        """First token of `text` and `prompt` as one prompt."""
        return self.generate([[*self.engine.tokenizer.encode_prompt(text), *prompt]], 1)


if __name__ == "__main__":
    serve(Ours())
