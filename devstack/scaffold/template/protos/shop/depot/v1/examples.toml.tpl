# Examples of values in this package, by `Message.field` or by the name alone (protos/codegen/examples.py).
display_name = "«A parcel»"
# [uuid key]
id = "01930b74-2c11-7f5e-9d0a-7a4be1c85f20"
parcelId = "01930b74-2c11-7f5e-9d0a-7a4be1c85f20"
# [end]
# [text key]
id = "first-1"
parcelId = "first-1"
# [end]
