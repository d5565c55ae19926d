syntax = "proto3";

package shop.depot.v1;

import "buf/validate/validate.proto";
import "google/api/annotations.proto";
import "google/api/field_behavior.proto";
import "shop/depot/v1/parcel.proto";
import "shop/system/v1/access.proto";
import "shop/system/v1/text_rules.proto";

// «Parcels».
//
// Every rpc can also answer the reasons of shop.system.v1: INVALID_FIELDS, MALFORMED_REQUEST, DATABASE_UNAVAILABLE,
// OVERLOADED, DEADLINE_EXCEEDED, INTERNAL, and every one with a request id REQUEST_ID_REUSED.
//
// The option `access` of an rpc says who may call it. An rpc that is not public answers TOKEN_INVALID, TOKEN_EXPIRED or
// ROLE_REQUIRED to all other callers.
service DepotService {
  // Creates «a parcel».
  // [text key]
  //
  // Reasons: PARCEL_EXISTS.
  // [end]
  rpc CreateParcel(CreateParcelRequest) returns (Parcel) {
    option (google.api.http) = {
      post: "/api/v1/parcels"
      body: "*"
    };
    option (shop.system.v1.access) = {
      roles: [
        ROLE_ADMIN,
        ROLE_SERVICE
      ]
    };
  }

  // Returns «a parcel».
  //
  // Reasons: PARCEL_NOT_FOUND.
  rpc GetParcel(GetParcelRequest) returns (Parcel) {
    option (google.api.http) = {get: "/api/v1/parcels/{id}"};
    option (shop.system.v1.access) = {
      roles: [
        ROLE_USER,
        ROLE_SUPPORT,
        ROLE_ADMIN,
        ROLE_SERVICE
      ]
    };
  }

  // [uuid key]
  // Lists «parcels», newest first.
  // [end]
  // [text key]
  // Lists «parcels», in the order of their ids.
  // [end]
  //
  // Reasons: INVALID_PAGE_TOKEN.
  rpc ListParcels(ListParcelsRequest) returns (ListParcelsResponse) {
    option (google.api.http) = {get: "/api/v1/parcels"};
    option (shop.system.v1.access) = {
      roles: [
        ROLE_USER,
        ROLE_SUPPORT,
        ROLE_ADMIN,
        ROLE_SERVICE
      ]
    };
  }

  // Changes the fields that are present.
  //
  // Reasons: PARCEL_NOT_FOUND, ETAG_MISMATCH.
  rpc UpdateParcel(UpdateParcelRequest) returns (Parcel) {
    option (google.api.http) = {
      patch: "/api/v1/parcels/{id}"
      body: "*"
    };
    option (shop.system.v1.access) = {
      roles: [
        ROLE_ADMIN,
        ROLE_SERVICE
      ]
    };
  }
}

// «A parcel» to create.
message CreateParcelRequest {
  // [text key]
  // The id of the new «parcel», which no other one has: up to 63 small letters, digits and hyphens between them.
  string id = 3 [
    (google.api.field_behavior) = REQUIRED,
    (buf.validate.field).string = {
      max_len: 63
      pattern: "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
    }
  ];

  // [end]
  // The name to show, at most 100 characters, at least one of them visible.
  string display_name = 1 [
    (google.api.field_behavior) = REQUIRED,
    (buf.validate.field).string = {
      max_len: 100
      [shop.system.v1.no_nul]: true
      [shop.system.v1.not_blank]: true
    }
  ];

  // The idempotency key, a UUID that the caller makes up. For 24 hours a repetition with the same id and the same
  // content is not done again, and gets the first answer.
  string request_id = 2 [
    (google.api.field_behavior) = OPTIONAL,
    (buf.validate.field).string.uuid = true,
    (buf.validate.field).ignore = IGNORE_IF_ZERO_VALUE
  ];
}

// The «parcel» to return.
message GetParcelRequest {
  // The id of the «parcel».
  string id = 1 [
    (google.api.field_behavior) = REQUIRED,
    // [uuid key]
    (buf.validate.field).string.uuid = true
    // [end]
    // [text key]
    (buf.validate.field).string = {
      max_len: 63
      pattern: "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
    }
    // [end]
  ];
}

// The «parcels» to list.
message ListParcelsRequest {
  // The number of entries per page: 0 means 50, and more than 200 means 200. A page of large entries has fewer.
  int32 page_size = 1 [
    (google.api.field_behavior) = OPTIONAL,
    (buf.validate.field).int32.gte = 0
  ];

  // The `next_page_token` of the previous page; absent for the first page.
  string page_token = 2 [
    (google.api.field_behavior) = OPTIONAL,
    (buf.validate.field).string.max_len = 512
  ];
}

// One page of «parcels».
message ListParcelsResponse {
  // [uuid key]
  // The «parcels», newest first.
  // [end]
  // [text key]
  // The «parcels», in the order of their ids.
  // [end]
  repeated Parcel parcels = 1;

  // The `page_token` of the next page; empty if this is the last page.
  string next_page_token = 2;
}

// The changes of «a parcel».
message UpdateParcelRequest {
  // The id of the «parcel».
  string id = 1 [
    (google.api.field_behavior) = REQUIRED,
    // [uuid key]
    (buf.validate.field).string.uuid = true
    // [end]
    // [text key]
    (buf.validate.field).string = {
      max_len: 63
      pattern: "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
    }
    // [end]
  ];

  // The new name, if present; with the same rules as in CreateParcelRequest.
  optional string display_name = 2 [
    (google.api.field_behavior) = OPTIONAL,
    (buf.validate.field).string = {
      max_len: 100
      [shop.system.v1.no_nul]: true
      [shop.system.v1.not_blank]: true
    }
  ];

  // The etag of the «parcel» that the change is based on: if it has changed since, the change is refused.
  // Absent: changes it in any version.
  string etag = 3 [
    (google.api.field_behavior) = OPTIONAL,
    (buf.validate.field).string.max_len = 64
  ];

  // The idempotency key, as in CreateParcelRequest.
  string request_id = 4 [
    (google.api.field_behavior) = OPTIONAL,
    (buf.validate.field).string.uuid = true,
    (buf.validate.field).ignore = IGNORE_IF_ZERO_VALUE
  ];
}
