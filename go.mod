module banger

go 1.26
