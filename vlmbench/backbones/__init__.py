"""Pretrained vision-language models, each behind one of two small interfaces."""
