syntax = "proto3";

package shop.depot.v1;

import "google/api/field_behavior.proto";
import "google/protobuf/timestamp.proto";

// «A parcel».
message Parcel {
  // [uuid key]
  // UUID, version 7: later «parcels» sort after earlier ones.
  // [end]
  // [text key]
  // Chosen by its creator; never changes.
  // [end]
  string id = 1 [(google.api.field_behavior) = IDENTIFIER];

  // The name to show.
  string display_name = 2;

  // When the «parcel» was created.
  google.protobuf.Timestamp created_at = 3 [(google.api.field_behavior) = OUTPUT_ONLY];

  // When the «parcel» last changed.
  google.protobuf.Timestamp updated_at = 4 [(google.api.field_behavior) = OUTPUT_ONLY];

  // Identifies this version of the «parcel»: it differs after every change. A write that carries it is refused
  // if something has changed since.
  string etag = 5 [(google.api.field_behavior) = OUTPUT_ONLY];
}
