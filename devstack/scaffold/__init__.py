"""`make service`: a new service from template/, and its removal.

The template is a small service whole: contract, code, migration, tests, a page. In its files `depot` stands for the
name of the service, `parcel` for its resource, `parcels` for several; «a parcel» stands for the words of people. The
lines from `# [reads]` to `# [end]` are only for a service that reads events; those from `# [each read]` are written for
each resource whose events it reads, here `cargo`.
"""
