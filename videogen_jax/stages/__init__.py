"""The paper's trainable parts, one file each; stages/stage.py says what each of them offers."""
