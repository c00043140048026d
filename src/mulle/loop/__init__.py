"""The only room that composes stages: steps, engine, triggers, ticks, replay."""
