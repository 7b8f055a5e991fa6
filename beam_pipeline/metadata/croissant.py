"""The description of a dataset as Croissant 1.0, `croissant.json`. Pure.

Croissant describes tables, not TFRecords: its record sets are `metadata-*.parquet` and
`near_duplicates.parquet`. Specification: https://docs.mlcommons.org/croissant/docs/croissant-spec.html.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from beam_pipeline import naming
from beam_pipeline.dataset_info import DatasetInfo
from beam_pipeline.images import perceptual_hash
from beam_pipeline.metadata.dataset_card import name_of
from beam_pipeline.metadata.generated_text import DIGEST_PLACE
from beam_pipeline.records import metadata_table, near_duplicate_table

_PARQUET, _TFRECORD = "application/x-parquet", "application/x-tfrecord"
_TYPES = {
    pa.string(): "sc:Text",
    pa.int64(): "sc:Integer",
    pa.float32(): "sc:Float",
    # Bytes have no type of their own.
    pa.binary(perceptual_hash.HASH_BYTES): "sc:Text",
}
# The context of the specification, and a term that is no part of the description.
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "digest": None,
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def describe(info: DatasetInfo, kept: tuple[str, ...]) -> str:
    """Return the content of `croissant.json`, to be signed by `generated_text.sign`.

    Args:
      info: The content of `dataset.json`.
      kept: The names in `--keep_columns`.
    """
    endings = ".tfrecord.gz" if info.compression == "gzip" else ".tfrecord"
    splits = {file.split for file in info.files}
    file_sets = [
        _describe_files(f"{split}-shards", f"{prefix}*{endings}", _TFRECORD, f"the {split} split")
        for split, prefix in zip(
            naming.SPLITS, (naming.TRAIN_PREFIX, naming.VALIDATION_PREFIX), strict=True
        )
        if split in splits
    ]
    file_sets.append(
        _describe_files(
            "metadata", f"{naming.METADATA_PREFIX}*.parquet", _PARQUET, "a row for each example"
        )
    )
    record_sets = [
        _describe_table(
            "examples",
            "A row for each example, in the order of the records.",
            "metadata",
            metadata_table.make_schema(kept),
            {**metadata_table.MEANINGS, **metadata_table.kept_meanings(kept)},
        )
    ]
    if info.near_duplicates and info.near_duplicates.clusters:
        file_sets.append(
            _describe_files(
                "near-duplicates", naming.NEAR_DUPLICATES, _PARQUET, "images that look the same"
            )
        )
        record_sets.append(
            _describe_table(
                "near_duplicates",
                "A row for each image that has a near-duplicate.",
                "near-duplicates",
                near_duplicate_table.SCHEMA,
                {**metadata_table.MEANINGS, "cluster": near_duplicate_table.CLUSTER_MEANING},
            )
        )
    content = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": name_of(info),
        "description": f"{info.description}.",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "distribution": file_sets,
        "recordSet": record_sets,
        "digest": f"a run replaces this file unless it was edited: sha256 {DIGEST_PLACE}",
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _describe_files(name: str, pattern: str, kind: str, description: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "description": description,
        "encodingFormat": kind,
        "includes": pattern,
    }


def _describe_table(
    name: str, description: str, files: str, schema: pa.Schema, meanings: dict[str, str]
) -> dict[str, Any]:
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{name}/{identifier}",
            "name": column.name,
            "description": meanings[column.name],
            "dataType": _TYPES[column.type],
            "source": {"fileSet": {"@id": files}, "extract": {"column": column.name}},
        }
        for identifier, column in zip(_identify(schema.names), schema, strict=True)
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": description,
        "field": fields,
    }


def _identify(names: Sequence[str]) -> list[str]:
    """Return distinct identifiers of columns; names with other characters get a number.

    >>> _identify(["name", "licence \u00e9"])
    ['name', 'column-1']
    """
    return [
        name if re.fullmatch(r"\w+", name, re.ASCII) else f"column-{index}"
        for index, name in enumerate(names)
    ]
