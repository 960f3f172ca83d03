"""Operations accepted for later delivery."""
