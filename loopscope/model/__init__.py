"""The looped transformer that Loopscope trains. `config` stays importable without torch."""
