"""Packs the Noto emoji that the phantom sees into one small file.

Run by hand when the picture set changes; users never need it. It reads an unpacked
`emoji-datasource-google` package (64 px PNGs, images Apache-2.0) and writes `emoji.zip`:
the pictures and `names.tsv` with one row a picture (file, name, category).
"""

from __future__ import annotations

import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

__all__ = ["pack"]

CATEGORIES = {
    "animal-mammal": "animal", "animal-reptile": "animal", "animal-marine": "animal",
    "animal-bug": "animal", "animal-bird": "animal", "animal-amphibian": "animal",
    "food-prepared": "food", "food-vegetable": "food", "food-fruit": "food", "food-sweet": "food",
    "food-asian": "food", "drink": "food", "plant-flower": "plant", "plant-other": "plant",
    "household": "thing", "tool": "thing", "musical-instrument": "thing", "clothing": "thing",
    "sport": "thing", "transport-ground": "vehicle", "transport-air": "vehicle",
    "transport-water": "vehicle",
}  # fmt: skip
RENAMED = {
    "hocho": "knife", "t-rex": "dinosaur", "sauropod": "dinosaur", "poultry_leg": "drumstick",
    "fries": "french fries", "mag": "magnifying glass", "bike": "bicycle", "dove_of_peace": "dove",
    "moyai": "statue", "three_button_mouse": "computer mouse", "soccer": "soccer ball",
    "couch_and_lamp": "couch", "tophat": "top hat", "mans_shoe": "shoe", "dromedary_camel": "camel",
    "black_nib": "pen", "rain_cloud": "cloud", "partly_sunny": "cloud", "sunny": "sun",
    "house_with_garden": "house", "drum_with_drumsticks": "drum", "icecream": "ice cream",
    "leafy_green": "lettuce", "carpentry_saw": "saw", "womans_hat": "hat", "dark_sunglasses": "sunglasses",
    "earth_africa": "globe", "mailbox_closed": "mailbox", "cut_of_meat": "steak", "zap": "lightning",
    "straight_ruler": "ruler", "brown_mushroom": "mushroom", "shallow_pan_of_food": "paella",
    "lower_left_crayon": "crayon", "lower_left_paintbrush": "paintbrush", "lower_left_ballpoint_pen": "pen",
    "glass_of_milk": "milk", "wine_glass": "wine", "beers": "beer", "racehorse": "horse",
    "boat": "sailboat", "fire_engine": "fire truck", "articulated_lorry": "truck", "blue_car": "car",
    "feet": "paw prints", "sun_with_face": "sun", "school_satchel": "backpack",
    "birthday": "birthday cake", "running_shirt_with_sash": "shirt",
}  # fmt: skip
SKIPPED = {
    "link", "compression", "chains", "hammer_and_pick", "hammer_and_wrench", "probing_cane", "pig_nose",
    "vhs", "tv", "o2", "date", "calling", "fax", "black_joker", "spades", "clubs", "hearts", "diamonds",
    "closed_umbrella", "umbrella_on_ground", "new_moon_with_face", "first_quarter_moon_with_face",
    "last_quarter_moon_with_face", "waxing_crescent_moon", "first_quarter_moon", "waning_gibbous_moon",
    "last_quarter_moon", "waning_crescent_moon", "new_moon", "full_moon_with_face", "mostly_sunny",
    "barely_sunny", "partly_sunny_rain", "mag_right", "smoking", "coffin", "love_hotel", "tokyo_tower",
    "wedding", "seat", "station", "construction", "motorway", "busstop", "post_office", "bricks",
    "european_post_office", "convenience_store", "house_buildings", "derelict_house_building",
    "building_construction", "microbe", "bubbles", "rice_scene", "hotsprings", "label", "ledger",
    "bookmark_tabs", "page_with_curl", "page_facing_up", "file_folder", "open_file_folder",
    "card_index_dividers", "linked_paperclips", "clapper", "film_frames", "mirror_ball", "thong_sandal",
    "bikini", "briefs", "womans_clothes", "womans_flat_shoe", "one-piece_swimsuit", "mans_shoe2",
    "bomb", "dagger_knife", "gun", "bow_and_arrow", "crossed_swords", "syringe", "pill",
    "drop_of_blood", "slot_machine", "8ball", "oncoming_bus", "oncoming_taxi", "oncoming_police_car",
    "oncoming_automobile", "bullettrain_side", "bullettrain_front", "light_rail", "train2",
    "vertical_traffic_light", "octagonal_sign", "low_battery", "wood", "rock", "hut", "empty_nest",
    "wilted_flower", "white_flower", "rosette", "stars", "star2", "foggy", "wind_blowing_face",
    "crutch", "x-ray", "amphora", "nazar_amulet", "hamsa", "knife_fork_plate", "tanabata_tree",
}  # fmt: skip


def pack(package: Path, out: Path) -> int:
    """Write `emoji.zip` from an unpacked emoji package and return how many pictures it holds."""
    rows: list[tuple[str, str, str]] = []
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as pack_file:
        for entry in json.loads((package / "emoji.json").read_text()):
            name = _name(entry)
            if name is None:
                continue
            data = (package / "img" / "google" / "64" / entry["image"]).read_bytes()
            _write(pack_file, entry["image"], data)
            rows.append((entry["image"], name, CATEGORIES[entry["subcategory"]]))
        table = "file\tname\tcategory\n" + "".join("\t".join(row) + "\n" for row in rows)
        _write(pack_file, "names.tsv", table.encode())
    return len(rows)


def _name(entry: dict[str, Any]) -> str | None:
    """The everyday one-word name of one emoji, or None where it is left out."""
    short = str(entry["short_name"])
    if entry["subcategory"] not in CATEGORIES or short in SKIPPED or not entry["has_img_google"]:
        return None
    name = RENAMED.get(short) or re.sub(r"\d+$", "", re.sub(r"_face$", "", short)).replace("_", " ")
    return name if name.isascii() and len(name.split()) == 1 and "-" not in name else None


def _write(pack_file: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Store one file with a fixed date, so that the pack is the same bytes each time."""
    pack_file.writestr(zipfile.ZipInfo(name, date_time=(2026, 1, 1, 0, 0, 0)), data)


if __name__ == "__main__":
    print(pack(Path(sys.argv[1]), Path(__file__).with_name("emoji.zip")))
