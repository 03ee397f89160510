"""The text of a module: functions and the declarations they need."""

from __future__ import annotations

from facula.codegen.values import PTR, Value


class Module:
    """Functions in the making, and what they refer to outside of themselves."""

    def __init__(self, target):
        self.target = target
        self.functions = []
        self.declared = {}
        self.globals = {}

    def declare(self, name: str, result: str, types: str):
        """Make sure that a function is declared."""
        if name not in self.declared:
            self.declared[name] = f"declare {result} @{name}({types})"

    def zeros(self) -> Value:
        """The address of 64 bytes of zeros, where masked-off scalar loads go."""
        self.globals["zeros"] = "@zeros = private constant [64 x i8] zeroinitializer, align 64"
        return Value("@zeros", PTR, 0, 0)

    def threads(self) -> str:
        """The name of the runtime's number of threads in force."""
        self.globals["threads"] = "@facula_threads = external global i64"
        return "@facula_threads"

    def define(self, head: str, writer):
        """Add a finished function."""
        scope = writer.scopes[0]
        lines = [f"define {head} {{", "entry:", *scope.head, *scope.lines, "}"]
        self.functions.append("\n".join(lines))

    def text(self) -> str:
        """All of it; functions in the order in which they were finished."""
        parts = [*self.globals.values(), *self.declared.values(), *self.functions]
        return "\n".join(parts) + "\n"
