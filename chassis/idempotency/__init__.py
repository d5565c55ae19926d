"""A write that is sent twice takes effect once.

- key: what makes two requests the same request;
- store: the table of keys, with the responses stored beside them;
- inserts, transactions: key, effect, event and stored response in one statement or one transaction.
"""
