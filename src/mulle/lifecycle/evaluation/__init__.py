"""Stage 4: measure answers, slice by slice, compare with the champion, judge the gates."""
