"""Whether a candidate model may take over from the active one, judged by parts that both have seen."""
